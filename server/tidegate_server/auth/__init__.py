"""Who may do what: identities, roles, scopes, and the one table of what every method needs."""
