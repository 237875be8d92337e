package cyclonedx

// Names of the properties that bills of the audit carry. They reach disk: never change or reuse.
const (
	PropPath          = "audit:path"                 // absolute path of a file where the part was found; may come more than once
	PropPathsOmitted  = "audit:paths:omitted"        // number of paths beyond the ones listed
	PropGoPackage     = "audit:go:package"           // import path of a program's main package
	PropGoModules     = "audit:go:modules"           // "unknown": the build kept no list of modules
	PropGoReplaces    = "audit:go:replaces"          // module@version in whose place this one is linked
	PropGoReplaced    = "audit:go:replacedByFolder"  // the folder whose code is linked instead
	PropGoVersion     = "audit:go:version"           // the toolchain's own name of its version
	PropDebSource     = "audit:debian:source"        // source package
	PropDebSourceVers = "audit:debian:sourceVersion" // its version
	PropDebFile       = "audit:debian:file"          // file of the database that lists it
)
