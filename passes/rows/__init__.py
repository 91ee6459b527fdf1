"""The kernel generator behind `stream-rows`."""
