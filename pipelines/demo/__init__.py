"""The demonstration: an application, its users, and the whole loop around them."""
