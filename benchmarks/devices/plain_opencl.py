"""Kernels as a person writes them first, in OpenCL C: a tile of 16 × 16 in local memory, one result a thread."""

from __future__ import annotations

#: Rows and columns of a group's tile of results, each of a thread.
TILE = 16
#: Of an image's part that the tile of a 3 × 3 convolution needs.
PART = TILE + 2
#: Threads that share a row, or of a group that shares nothing.
ROW_THREADS = 256
#: What each of the kernels is called.
NAME = "plain"

_PRODUCT = """
__kernel void plain(__global const float *left, __global const float *right, __global float *result)
{
    __local float rows[TILE][TILE];
    __local float columns[TILE][TILE];
    const int x = get_local_id(0), y = get_local_id(1);
    const int column = get_global_id(0), row = get_global_id(1);
    float total = 0.0f;
    for (int start = 0; start < K; start += TILE) {
        rows[y][x] = left[row * K + start + x];
        columns[y][x] = right[(start + y) * N + column];
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int k = 0; k < TILE; ++k)
            total += rows[y][k] * columns[k][x];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    result[row * N + column] = total;
}
"""

_CONVOLUTION = """
__kernel void plain(__global const float *image, __global const float *weights, __global float *result)
{
    __local float part[PART][PART];
    const int x = get_local_id(0), y = get_local_id(1), filter = get_group_id(2);
    const int left = get_group_id(0) * TILE - 1, top = get_group_id(1) * TILE - 1;
    float total = 0.0f;
    for (int channel = 0; channel < CHANNELS; ++channel) {
        for (int place = y * TILE + x; place < PART * PART; place += TILE * TILE) {
            const int row = top + place / PART, column = left + place % PART;
            const int inside = row >= 0 && row < SIZE && column >= 0 && column < SIZE;
            part[place / PART][place % PART] = inside ? image[(channel * SIZE + row) * SIZE + column] : 0.0f;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        __global const float *w = weights + (filter * CHANNELS + channel) * 9;
        for (int i = 0; i < 3; ++i)
            for (int j = 0; j < 3; ++j)
                total += part[y + i][x + j] * w[i * 3 + j];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    const int row = top + 1 + y, column = left + 1 + x;
    if (row < SIZE && column < SIZE)
        result[(filter * SIZE + row) * SIZE + column] = total;
}
"""

_SOFTMAX = """
__kernel void plain(__global const float *input, __global float *output)
{
    __local float shared[THREADS];
    const int thread = get_local_id(0), row = get_group_id(0) * COLUMNS;
    float own = -INFINITY;
    for (int k = thread; k < COLUMNS; k += THREADS)
        own = fmax(own, input[row + k]);
    shared[thread] = own;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int half_way = THREADS / 2; half_way > 0; half_way /= 2) {
        if (thread < half_way)
            shared[thread] = fmax(shared[thread], shared[thread + half_way]);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    const float largest = shared[0];
    barrier(CLK_LOCAL_MEM_FENCE);
    own = 0.0f;
    for (int k = thread; k < COLUMNS; k += THREADS)
        own += exp(input[row + k] - largest);
    shared[thread] = own;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int half_way = THREADS / 2; half_way > 0; half_way /= 2) {
        if (thread < half_way)
            shared[thread] += shared[thread + half_way];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    const float total = shared[0];
    for (int k = thread; k < COLUMNS; k += THREADS)
        output[row + k] = exp(input[row + k] - largest) / total;
}
"""

_BLEND = """
__kernel void plain(__global const float *x, __global const float *z, __global float *y)
{
    const int i = get_global_id(0);
    y[i] = x[i] * 0.75f + z[i] * 0.25f;
}
"""


def product(k: int, n: int) -> str:
    """Of an (M, k) and a (k, n) matrix."""
    return _defined(_PRODUCT, TILE=TILE, K=k, N=n)


def convolution(channels: int, size: int) -> str:
    """3 × 3, of an image of size × size; a group has a tile of one filter's results."""
    return _defined(_CONVOLUTION, TILE=TILE, PART=PART, CHANNELS=channels, SIZE=size)


def softmax(columns: int) -> str:
    """A group of threads has a row."""
    return _defined(_SOFTMAX, THREADS=ROW_THREADS, COLUMNS=columns)


def blend() -> str:
    """A thread has an element."""
    return _BLEND


def _defined(text: str, **sizes: int) -> str:
    return "".join(f"#define {name} {value}\n" for name, value in sizes.items()) + text
