"""Passwords that PAM checks: by itself where it can, and by a small root process where only root can (pam_unix)."""
