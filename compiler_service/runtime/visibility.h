/* Who may call a function of the runtime: the library's user, or generated code in it. */

#ifdef _WIN32
#define EXPORTED __declspec(dllexport)
#define HIDDEN
#else
#define EXPORTED __attribute__((visibility("default")))
#define HIDDEN __attribute__((visibility("hidden")))
#endif
