"""One set of cases for every client program, whatever language it is written in."""
