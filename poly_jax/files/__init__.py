"""Files of any kind: JSON from outside, writing what appears when it is whole, new folders."""
