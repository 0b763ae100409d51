"""Typing indicators: the expired ones are deleted each minute. Readers do not wait for it: they ask for expires_at > NOW()."""
