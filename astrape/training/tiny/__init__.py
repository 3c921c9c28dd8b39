"""The proof that training learns: the small twin of astrape-vc on real speech, in minutes, against stated baselines."""
