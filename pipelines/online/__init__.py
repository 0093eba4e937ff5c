"""What a request looks up where several machines must see the same: a Redis that may be lost."""
