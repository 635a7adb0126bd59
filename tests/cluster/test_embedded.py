"""How embedded Ray starts; tests/system/test_embedded_ray.py starts a real one."""

from trialrun.cluster import embedded


class State:
    """Ray's view of its nodes, of which one is known at the third look."""

    def __init__(self):
        self.looks = [[], [{"NodeID": "other"}], [{"NodeID": "other"}, {"NodeID": "own"}]]

    def _initialize_global_state(self, options):
        assert options == "options of address"

    def node_table(self):
        return self.looks.pop(0)

    def get_node(self, node_id):
        return {"node_id": node_id, "looks_left": len(self.looks)}


def test_a_node_is_looked_for_until_ray_knows_it(monkeypatch):
    pauses = []
    monkeypatch.setattr(embedded, "GlobalState", State)
    monkeypatch.setattr(embedded.services, "_get_gcs_client_options", "options of {}".format)
    monkeypatch.setattr(embedded.time, "sleep", pauses.append)
    assert embedded.node_when_known("address", "own") == {"node_id": "own", "looks_left": 0}
    assert len(pauses) == 2
    assert max(pauses) < 0.1
