//! Every maximum of the server, with its unit, in one place, and the sum of the memory that they bound.
