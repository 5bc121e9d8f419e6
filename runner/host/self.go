package host

// Self is a path by which a process executes the file that it runs, as a child: proc(5). After
// an upgrade, the path of the program leads to another file, whose commands may be others.
const Self = "/proc/self/exe"
