"""Who is in the federation and who may say so: key files, the signed roster, joining, signed calls of people."""
