"""Claiming GPUs. There is none where the tests run: `tf.config` is told what to say about them."""

import logging
from types import SimpleNamespace

import pytest
import tensorflow as tf

from trialrun.errors import DeviceError
from trialrun.training.device_view import compute
from trialrun.training.devices import claim_gpus

pytestmark = pytest.mark.tensorflow


class StandIn:
    """What TensorFlow would say and do on a machine with these GPUs; a stand-in, not a GPU."""

    def __init__(self, monkeypatch, num_gpus):
        self.gpus = [SimpleNamespace(name=f"/physical_device:GPU:{i}") for i in range(num_gpus)]
        self.grows = {gpu.name: False for gpu in self.gpus}
        self.num_settings = 0
        config = tf.config
        monkeypatch.setattr(config, "list_physical_devices", self.list_physical_devices)
        experimental = config.experimental
        monkeypatch.setattr(experimental, "get_memory_growth", lambda gpu: self.grows[gpu.name])
        monkeypatch.setattr(experimental, "set_memory_growth", self.set_memory_growth)
        monkeypatch.setattr(experimental, "get_device_details", lambda gpu: {"device_name": "A100"})

    def list_physical_devices(self, kind):
        assert kind == "GPU"
        return self.gpus

    def set_memory_growth(self, gpu, enable):
        self.grows[gpu.name] = enable
        self.num_settings += 1


def test_a_machine_without_gpus_computes_on_the_cpu():
    assert claim_gpus([]) == "CPU"  # the real tf.config


def test_a_pretended_gpu_computes_on_the_cpu_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        assert claim_gpus(["0"]) == "CPU"
    assert "TensorFlow sees none" in caplog.text


def test_the_assigned_gpu_gets_memory_growth_and_is_named(monkeypatch):
    tensorflow = StandIn(monkeypatch, num_gpus=1)
    assert claim_gpus(["3"]) == "GPU 3: A100"
    assert tensorflow.grows == {"/physical_device:GPU:0": True}


def test_every_assigned_gpu_gets_memory_growth(monkeypatch):
    tensorflow = StandIn(monkeypatch, num_gpus=2)
    assert claim_gpus(["1", "3"]) == "GPU 1: A100; GPU 3: A100"
    assert all(tensorflow.grows.values())


def test_the_memory_of_a_gpu_is_what_the_driver_says(monkeypatch, tmp_path):
    """A stand-in for nvidia-smi, which says which GPU it was asked for."""
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\n[ "$1" = --id=3 ] && echo "40960 MiB"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    StandIn(monkeypatch, num_gpus=1)
    assert claim_gpus(["3"]) == "GPU 3: A100, 40960 MiB"
    assert claim_gpus(["4"]) == "GPU 4: A100"


def test_memory_growth_is_set_once_as_tensorflow_refuses_it_after_the_start(monkeypatch):
    tensorflow = StandIn(monkeypatch, num_gpus=1)
    claim_gpus(["0"])
    claim_gpus(["0"])
    assert tensorflow.num_settings == 1


@pytest.mark.parametrize("assigned", [[], ["1"]])
def test_more_gpus_than_assigned_are_refused_before_any_is_touched(monkeypatch, assigned):
    tensorflow = StandIn(monkeypatch, num_gpus=2)
    with pytest.raises(DeviceError, match=rf"given {len(assigned)} GPU\(s\).*sees 2: /physical"):
        claim_gpus(assigned)
    assert not any(tensorflow.grows.values())


def test_a_device_that_computes_wrongly_is_found(monkeypatch):
    """The fault is put into TensorFlow: this machine's processor has none."""
    assert compute("/device:CPU:0")["is_right"]
    right = tf.matmul
    monkeypatch.setattr(tf, "matmul", lambda a, b: right(a, b) + 1.0)
    assert not compute("/device:CPU:0")["is_right"]


def test_a_device_that_is_not_there_is_an_error_not_a_crash():
    told = compute("/device:GPU:7")
    assert not told["is_right"]
    assert told["error"]
