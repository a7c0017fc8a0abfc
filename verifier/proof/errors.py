"""What reading or checking a certificate raises."""

from verifier.errors import InputError


class CertificateError(InputError):
    """A certificate is damaged, does not belong to the network, or does not prove what it states."""
