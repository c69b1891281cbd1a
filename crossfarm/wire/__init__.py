"""The floor where programs meet: generated stubs (``v1``), channels, servers, errors on the wire, tensor bytes."""
