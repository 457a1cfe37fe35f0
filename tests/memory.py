"""How much memory a program of a test has taken, in the words of the program itself."""

# Not getrusage: its ru_maxrss starts, in a child, with what the parent had.
PEAK_MIB = """
def peak_mib():
    with open("/proc/self/status") as status:
        return int(status.read().partition("VmHWM:")[2].split()[0]) // 1024
"""
