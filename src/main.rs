//! The program, and its allocator; all else of it is in the library.

use std::process::ExitCode;

use tikv_jemalloc_ctl::{background_thread, max_background_threads};
use tikv_jemallocator::Jemalloc;

/// The C library's keeps what a load has needed for as long as the process lives: 117 of 172 MiB were free memory. This one gives back
/// pages that nobody has used for ten seconds. RocksDB's memory comes from it too. Who embeds the library chooses for himself.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    // It sleeps while nothing is free. Without it pages are given back by who allocates next, who may be long in coming. Where
    // the system gives no thread, memory is all that it costs here; what a command needs it asks for itself.
    let _memory_stays = max_background_threads::write(1).and_then(|()| background_thread::write(true)).is_err();
    duragram::cli::main()
}
