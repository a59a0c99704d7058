// Imports a package from where the benchmark's own packages lie, wherever the caller's code may have been moved to.

export const from = (name) => import(name)
