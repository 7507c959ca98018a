"""Users and their questions: what is asked, when and of whom, and what became of it; `client` is who asks."""
