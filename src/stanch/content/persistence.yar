// What starts by itself, or keeps itself hidden, and has no honest reason to: reverse shells where programs start,
// libraries and modules that hide files, miners. Written to be wrong rarely rather than to know much.

rule Reverse_shell_where_programs_start : persistence
{
    meta:
        description = "A reverse shell in a unit, a crontab, a start file of a shell, or a short script"
        license = "Apache-2.0"
    strings:
        $bash = /\b(ba|da|z|k)?sh\s{1,8}-i\s{0,8}[0-9]{0,2}[<>]{1,2}&?\s{0,8}\/dev\/(tcp|udp)\/[0-9A-Za-z.:_-]{3,100}\/[0-9]{1,5}\b/
        $exec = /\bexec\s{1,8}[0-9]{1,3}<>\s{0,8}\/dev\/tcp\/[0-9A-Za-z.:_-]{3,100}\/[0-9]{1,5}\b/
        $nc = /\b(nc|ncat|netcat|nc\.traditional)\s{1,8}([0-9A-Za-z.:_-]{1,100}\s{1,8}){0,6}-[a-z]{0,4}[ec]\s{1,8}['"]?(\/usr)?(\/bin\/)?(ba|da|z|k)?sh\b/
        $fifo = /\bmkfifo\s{1,8}[^\n]{1,200}sh\s{1,8}-i\s{0,8}2>&1\s{0,8}\|\s{0,8}(nc|ncat|netcat|openssl\s{1,8}s_client)\b/
        $python = /socket\.socket\([^\n]{1,300}os\.dup2\([^\n]{1,300}(pty\.spawn|subprocess\.(call|run|Popen)|os\.system|os\.execl)/
        $perl = /use\s{1,8}Socket\s{0,8};[^\n]{1,400}exec\s{0,8}[({]?\s{0,8}['"]\/bin\/(ba|da)?sh\s{1,8}-i/
        $php = /fsockopen\([^\n]{1,200}(exec|system|shell_exec|passthru|proc_open)\(['"](\/bin\/)?(ba|da)?sh\s{1,8}-i/
        $socat = /\bsocat\s[^\n]{0,200}exec:['"]?(\/usr)?(\/bin\/)?(ba|da)?sh\b[^\n]{0,100}(tcp|tcp4|tcp6|openssl):[^\s'"]{3,100}:[0-9]{1,5}/ nocase
        $unit = "[Service]"
    condition:
        filesize < 64KB and uint32be(0) != 0x7f454c46 and
        any of ($bash, $exec, $nc, $fifo, $python, $perl, $php, $socat) and
        (
            $unit
            or (uint16be(0) == 0x2321 and filesize < 4KB)
            or filepath matches /\/(cron\.(d|daily|hourly|weekly|monthly)\/|spool\/(cron|at)\/|crontab$|rc\.local$|init\.d\/|profile\.d\/|update-motd\.d\/|autostart\/|\.(bashrc|bash_profile|bash_login|bash_logout|profile|zshrc|zprofile|zshenv)$|bash\.bashrc$)/
        )
}

rule Download_and_run_where_programs_start : persistence
{
    meta:
        description = "A unit or crontab that fetches a script from an address and runs it unseen"
        license = "Apache-2.0"
    strings:
        $address = /\b(curl|wget)\s[^|;&\n]{0,200}https?:\/\/[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}[:\/][^|;&\n]{0,200}\|\s{0,8}(\/bin\/|\/usr\/bin\/)?(ba|da)?sh\b/
        $paste = /\b(curl|wget)\s[^|;&\n]{0,200}https?:\/\/(pastebin\.com|transfer\.sh|[a-z0-9-]{1,60}\.onion)\/[^|;&\n]{0,200}\|\s{0,8}(\/bin\/|\/usr\/bin\/)?(ba|da)?sh\b/
        $hidden = /\becho\s[^|\n]{16,4000}\|\s{0,8}base64\s{1,8}(-d|-di|--decode)\s{0,8}\|\s{0,8}(\/bin\/|\/usr\/bin\/)?(ba|da)?sh\b/
        $unit = "[Service]"
    condition:
        filesize < 64KB and any of ($address, $paste, $hidden) and
        (
            $unit
            or filepath matches /\/(cron\.(d|daily|hourly|weekly|monthly)\/|spool\/(cron|at)\/|crontab$|rc\.local$|\.(bashrc|bash_profile|profile|zshrc)$)/
        )
}

rule Preloaded_library_in_an_odd_place : persistence rootkit
{
    meta:
        description = "ld.so.preload names a library in a folder for temporary files, or a hidden one"
        license = "Apache-2.0"
    strings:
        $odd = /(^|[\s:])\/(tmp|dev\/shm|var\/tmp|run\/shm)\/[^\s:]{1,200}/
        $hidden = /(^|[\s:])\/[^\s:]{0,200}\/\.[^\s:\/.][^\s:]{0,200}/
    condition:
        filename == "ld.so.preload" and filesize < 16KB and ($odd or $hidden)
}

rule Library_that_hides_files : rootkit
{
    meta:
        description = "A shared library that stands before the C library to hide files, and itself in ld.so.preload"
        license = "Apache-2.0"
    strings:
        $preload = "ld.so.preload"
        $next = "dlsym" fullword
        $list = "readdir64" fullword
        $stat_old = "__xstat" fullword
        $stat_new = "lstat64" fullword
        $open = "fopen64" fullword
        $unlink = "unlinkat" fullword
        $net = "/proc/net/tcp"
        $fd = /\/proc\/(self|%d|%s)\/fd\/%[ds]/
        $maps = "/proc/self/maps"
        $shell = /\/bin\/(ba)?sh\x00/
    condition:
        uint32be(0) == 0x7f454c46 and (uint16(16) == 3 or uint16be(16) == 3) and filesize < 2MB and
        $preload and $next and $list and 2 of ($stat_old, $stat_new, $open, $unlink) and 2 of ($net, $fd, $maps, $shell)
}

rule Kernel_module_that_hides : rootkit
{
    meta:
        description = "A kernel module that stands before the listing of folders, and gives rights away"
        license = "Apache-2.0"
    strings:
        $module = "vermagic="
        $list = "getdents64"
        $rights = "commit_creds" fullword
        $creds = "prepare_creds" fullword
        $hook_a = "kallsyms_lookup_name" fullword
        $hook_b = "sys_call_table" fullword
        $hook_c = "register_kprobe" fullword
        $hook_d = "ftrace_set_filter_ip" fullword
    condition:
        uint32be(0) == 0x7f454c46 and (uint16(16) == 1 or uint16be(16) == 1) and filesize < 4MB and
        $module and $list and $rights and $creds and any of ($hook_*)
}

rule Miner_configuration : miner
{
    meta:
        description = "The configuration of a miner of crypto currency"
        license = "Apache-2.0"
    strings:
        $donate = "\"donate-level\""
        $pools = "\"pools\""
        $randomx = "\"randomx\""
        $algo = "\"algo\""
        $rig = "\"rig-id\""
        $user = "\"user\""
    condition:
        filesize < 64KB and uint8(0) == 0x7b and $donate and $pools and $user and any of ($randomx, $algo, $rig)
}

rule Miner_where_programs_start : miner persistence
{
    meta:
        description = "A unit, crontab or short script that starts a miner of crypto currency"
        license = "Apache-2.0"
    strings:
        $pool = /stratum\+(tcp|ssl|tls|tcps):\/\/[0-9A-Za-z._-]{3,200}:[0-9]{2,5}/ nocase
        $flags = /(--donate-level|--randomx-[a-z0-9-]{2,30}|--coin\s{0,4}=?\s{0,4}monero|-a\s{0,4}rx\/0)[\s=0-9]/
        $unit = "[Service]"
    condition:
        filesize < 64KB and ($pool or $flags) and
        (
            $unit
            or (uint16be(0) == 0x2321 and filesize < 16KB)
            or filepath matches /\/(cron\.(d|daily|hourly|weekly|monthly)\/|spool\/(cron|at)\/|crontab$|rc\.local$|\.(bashrc|bash_profile|profile|zshrc)$)/
        )
}
