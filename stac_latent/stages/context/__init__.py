"""The context coder: integers coded by adaptive models, in numpy and compiled."""
