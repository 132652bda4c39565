//! What the documents say is what the program does.

mod citations;
mod configuration;
