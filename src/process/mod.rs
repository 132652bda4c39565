//! Lanes and handlers.
mod feed; mod handler; mod progress; mod retry;
pub use handler::*; pub use retry::RetryPolicy; pub use progress::*;
/// x
pub const LANE_CHANNEL_BLOCKS: usize = 256;
/// x
pub const LANE_CHANNEL_BYTES: u64 = 16 << 20;
