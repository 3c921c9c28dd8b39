"""``astrape studio``: a page in the browser through which one speaks in another voice, and the server behind it."""
