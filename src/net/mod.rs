//! Sockets: many datagrams a system call in, many acks a system call out. The only place that names nix and socket2.
