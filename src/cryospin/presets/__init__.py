"""The systems cryospin can be: one engine, assembled in several ways."""
