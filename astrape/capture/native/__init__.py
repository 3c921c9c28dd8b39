"""Native kernels: a captured step as a program for a small library in C, with no Python between its operators."""
