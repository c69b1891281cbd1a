"""Graph functions: programs over whole tensors.

types        what is known of a value
constant     content of constant tensors, by digest
expr         the nodes
dims         arithmetic of shapes
operator     what a row of the operator table is
operators/   the table, one file a family
infer        types of expressions
builder      makes functions
"""
