"""What an authenticator is given: otpauth URIs, keys as text, QR pictures, and lines to import."""
