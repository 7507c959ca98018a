"""The servers on satellites: real, held to a slower pace, modelled, or a user's own."""
