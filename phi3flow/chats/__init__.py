"""Chats: reading them from files and from the hub, their row shapes, and the chat template."""
