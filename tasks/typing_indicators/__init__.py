"""Typing indicators: delete the expired ones each minute. Readers do not wait for it: they ask for expires_at > NOW()."""
