//! The log.

use tracing_subscriber::EnvFilter;

use crate::args::{Args, LogFormat};

/// Starts the log as the command line asks for it; a filter that cannot be read becomes `info`.
pub fn init(args: &Args) {
    let filter = EnvFilter::try_new(&args.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    match args.log_format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.init(),
    }
}
