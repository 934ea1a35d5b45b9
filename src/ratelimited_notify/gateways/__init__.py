"""Where messages go. A gateway is any callable `gateway(recipient, *args, **kwargs)`; these are ready to use."""
