"""What may be sent: rules as pure data and functions, with no I/O and no clock."""
