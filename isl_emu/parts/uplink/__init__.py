"""The way of a model's weights from the ground to the satellites: what is sent to whom, and how a node takes part."""
