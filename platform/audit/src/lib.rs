//! The audit component: every request and security event, chained, searchable, exportable.
