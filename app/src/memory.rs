//! The allocator.
//!
//! glibc's keeps what is freed between what is still held: after a burst of work a fifth of the process and more was
//! free memory of its arenas. jemalloc gives it back, and takes a quarter less time where one thread frees what another
//! made, as every request's record does. See docs/adr/0023-jemalloc.md.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Pages that are free for two seconds go back, also when nobody allocates any more. All threads share one arena:
/// objects that stay and those that go are of the same sizes and come in the same moments, so every further arena has
/// pages of its own that are kept by few. Threads have caches before it.
// SAFETY: no other object of the program has this name; jemalloc reads it as a pointer to a text that ends in zero,
// which is what a reference to such bytes begins with.
#[unsafe(export_name = "_rjem_malloc_conf")]
static CONFIGURATION: &[u8; 70] = b"background_thread:true,dirty_decay_ms:2000,muzzy_decay_ms:0,narenas:1\0";
