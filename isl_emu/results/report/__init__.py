"""The summary of a run for readers: `render` puts it together, and each section is a module of its own."""
