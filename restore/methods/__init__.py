"""One file per method; registered under the entry-point group `safebasin.methods`."""
