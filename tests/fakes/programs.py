"""Python programs for children of a test, each doing one harmless trick that malware does, too."""

MAIN_THREAD_ENDS = """
import ctypes, os, threading, time

def live_on():
    print('ready', flush=True)
    time.sleep(1000)

threading.Thread(target=live_on).start()
exit_of_this_thread = 60 if os.uname().machine == 'x86_64' else 93
ctypes.CDLL(None).syscall(exit_of_this_thread, 0)
"""
"""Its main thread ends and another goes on: the process looks like a zombie, and runs."""
