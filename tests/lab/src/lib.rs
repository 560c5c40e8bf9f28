//! Stand-ins and load for the tests of sockproxyd.
