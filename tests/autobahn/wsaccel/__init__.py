# Stands in for the package wsaccel, which the suite uses if it is there: a C extension, which Python 2.7 could not compile
# here. Without it, the suite masks each byte in Python, which takes most of the time of its longer cases.
