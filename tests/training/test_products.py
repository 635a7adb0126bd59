"""Products of matrices are the same numbers in the ways that XLA computes fast."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from trialrun.training.program import loops
from trialrun.training.vectorize.products import products_for_xla

pytestmark = pytest.mark.tensorflow

# Operands of the layers EinsumDense and MultiHeadAttention, and of a Dense layer of two units.
PRODUCTS = {
    "abc,cd->abd": ((5, 4, 3), (3, 6)),
    "abc,cde->abde": ((5, 4, 3), (3, 2, 6)),
    "abcd,cde->abe": ((5, 4, 2, 3), (2, 3, 6)),
    "abc,dc->abd": ((5, 4, 3), (6, 3)),
    "abcd,aecd->acbe": ((5, 4, 2, 3), (5, 6, 2, 3)),
    "ab,bc->ac": ((5, 4), (4, 2)),
}


def product_and_gradients(equation, operands):
    with tf.GradientTape() as tape:
        tape.watch(operands)
        product = keras.ops.einsum(equation, *operands)
        loss = tf.reduce_sum(product**2)
    return product, *tape.gradient(loss, operands)


@pytest.mark.parametrize("equation", PRODUCTS)
def test_products_and_their_gradients_are_those_of_tensorflow(equation):
    rng = np.random.default_rng(0)
    operands = [tf.constant(rng.normal(size=shape), tf.float32) for shape in PRODUCTS[equation]]
    traced = tf.function(product_and_gradients, autograph=False)
    with products_for_xla(one_trial=True):
        graph = traced.get_concrete_function(equation, operands).graph
    of_stacks = sum(
        operation.type.startswith("BatchMatMul") for operation in graph.get_operations()
    )
    is_between_stacks = len(PRODUCTS[equation][1]) > 3
    assert of_stacks == (3 if is_between_stacks else 0)
    for ours, theirs in zip(
        traced(equation, operands), product_and_gradients(equation, operands), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_what_is_no_product_of_two_float_matrices_is_left_to_tensorflow():
    whole = tf.ones([2, 3, 4], tf.int16), tf.ones([4, 2], tf.int16)
    with products_for_xla(one_trial=True):
        product = tf.function(tf.matmul, jit_compile=True, autograph=False)(*whole)
        with pytest.raises(ValueError, match="Dimensions must be equal"):  # and not broadcast
            tf.function(lambda: tf.matmul(tf.ones([4, 3]), tf.ones([5, 1]), transpose_b=True))()
    np.testing.assert_array_equal(product, np.full([2, 3, 2], 4))


def test_a_loop_carries_one_trial_without_an_axis_of_one():
    """XLA would copy what it carries, if its shape were changed by what computes it anew."""

    @tf.function(jit_compile=True, autograph=False)
    def descend(weights, inputs):
        def step(_, weights, recorders):
            slope = tf.matmul(inputs, weights[0], transpose_a=True)
            return weights - 0.1 * slope[None], recorders

        return loops.repeat(step, 5, weights, one_trial=True)[0]

    given = tf.ones([1, 4, 2]), tf.eye(4)
    hlo = descend.experimental_get_compiler_ir(*given)(stage="optimized_hlo")
    assert re.search(r"= \(s32\[\], f32\[4,2\]\S* f32\[4,4\]\S* while\(", hlo)
    np.testing.assert_allclose(descend(*given), np.full([1, 4, 2], 0.9**5), rtol=1e-6)
