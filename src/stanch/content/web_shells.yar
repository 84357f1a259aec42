// Pages of a web server that run what a request says.

rule PHP_runs_what_a_request_says : webshell
{
    meta:
        description = "A PHP page that hands a parameter of the request to a shell or to eval"
        license = "Apache-2.0"
    strings:
        $begin = /<\?(php|=)/ nocase
        $direct = /\b(eval|assert|system|passthru|shell_exec|popen|proc_open|pcntl_exec)\s{0,8}\(\s{0,8}@?\$_(GET|POST|REQUEST|COOKIE)\s{0,4}\[/ nocase
        $exec = /[;{}(=@\s]exec\s{0,8}\(\s{0,8}@?\$_(GET|POST|REQUEST|COOKIE)\s{0,4}\[/ nocase
        $decoded = /\b(eval|assert|system|passthru|shell_exec)\s{0,8}\(\s{0,8}(base64_decode|str_rot13|gzinflate|hex2bin|stripslashes|urldecode)\s{0,8}\(\s{0,8}@?\$_(GET|POST|REQUEST|COOKIE|SERVER)\s{0,4}\[/ nocase
        $ticks = /`\s{0,8}\{?\$_(GET|POST|REQUEST|COOKIE)\s{0,4}\[[^`\n]{1,100}`/ nocase
        $variable = /\$_(GET|POST|REQUEST|COOKIE)\s{0,4}\[[^\]\n]{1,60}\]\s{0,4}\(\s{0,4}\$_(GET|POST|REQUEST|COOKIE)\s{0,4}\[/ nocase
    condition:
        filesize < 1MB and $begin and any of ($direct, $exec, $decoded, $ticks, $variable)
}

rule PHP_packed_twice : webshell
{
    meta:
        description = "A PHP page that unpacks its real code several times over before it runs it"
        license = "Apache-2.0"
    strings:
        $begin = /<\?(php|=)/ nocase
        $eval = /\beval\s{0,8}\(\s{0,8}(gzinflate|gzuncompress|gzdecode|str_rot13)\s{0,8}\(\s{0,8}(base64_decode|str_rot13|gzinflate)\s{0,8}\(\s{0,8}['"$]/ nocase
    condition:
        filesize < 1MB and $begin in (0..256) and $eval
}

rule JSP_runs_what_a_request_says : webshell
{
    meta:
        description = "A JSP page that hands a parameter of the request to a shell"
        license = "Apache-2.0"
    strings:
        $begin = "<%"
        $direct = /getRuntime\(\)\s{0,8}\.\s{0,8}exec\(\s{0,8}request\.getParameter\(/
        $builder = /new\s{1,8}ProcessBuilder\([^;\n]{0,200}request\.getParameter\(/
        $script = /getEngineByName\([^;\n]{0,100}\)\s{0,8}\.\s{0,8}eval\(\s{0,8}request\.getParameter\(/
    condition:
        filesize < 1MB and $begin in (0..4096) and any of ($direct, $builder, $script)
}

rule JSP_loads_classes_from_requests : webshell
{
    meta:
        description = "A JSP page that decrypts a class out of a request and runs it"
        license = "Apache-2.0"
    strings:
        $begin = "<%"
        $define = /\bdefineClass\(/
        $cipher = "Cipher.getInstance("
        $body_a = "request.getReader()"
        $body_b = "request.getInputStream()"
        $body_c = "request.getParameter("
        $loader = "extends ClassLoader"
    condition:
        filesize < 256KB and $begin in (0..4096) and $define and $cipher and $loader and any of ($body_*)
}

rule Python_runs_what_a_request_says : webshell
{
    meta:
        description = "A Python web application that hands a parameter of the request to a shell"
        license = "Apache-2.0"
    strings:
        $call = /\b(os\.popen|os\.system|subprocess\.(check_output|getoutput|getstatusoutput|run|call|Popen)|exec|eval)\(\s{0,8}(flask\.)?request\.(args|form|values|cookies|json|headers|GET|POST|COOKIES)(\.get\(|\[)/
        $cgi = /\b(os\.popen|os\.system|subprocess\.(check_output|getoutput|run|call|Popen))\(\s{0,8}(form|fields?|cgi\.FieldStorage\(\))\.getvalue\(/
    condition:
        filesize < 256KB and any of them
}

rule Shell_CGI_runs_what_a_request_says : webshell
{
    meta:
        description = "A CGI script of a shell that runs the query of the request"
        license = "Apache-2.0"
    strings:
        $type = /echo\s{1,8}(-e\s{1,8})?["']?Content-type:/ nocase
        $eval = /\b(eval|(ba|da)?sh\s{1,8}-c)\s{1,8}["'$({`]{0,6}[^\n]{0,80}\$\{?(QUERY_STRING|HTTP_[A-Z_]{2,40})\b/
    condition:
        filesize < 64KB and uint16be(0) == 0x2321 and all of them
}
