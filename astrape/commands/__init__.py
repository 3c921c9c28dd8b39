"""The commands of ``astrape``, a module each."""
