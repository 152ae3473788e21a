// Package config reads Unmoor's configuration file.
//
// Reading is strict: a key that is not known, or a value that makes no sense, is an error that names
// file, line and key. A key that is absent keeps its default. The file config.toml at the root of
// the source shows every key with its default.
package config
