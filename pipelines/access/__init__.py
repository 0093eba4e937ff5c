"""Who may ask what: keys with roles, for loops and for the tenants they belong to."""
