"""Gateways: callables that send messages. Any `gateway(recipient, *args, **kwargs)` is one; these are ready to use."""
