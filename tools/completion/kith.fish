# SPDX-License-Identifier: Apache-2.0
# Completion of the command kith for fish. It asks the command itself for its commands and options.

function __kith_table
    set -l given (commandline -opc)[2..-1]
    test "$given[1]" = help; and set -e given[1]
    set -l names (kith --complete 2>/dev/null | cut -f 1)
    if test (count $given) -eq 0
        printf '%s\n' $names | cut -d ' ' -f 1 | sort -u
        printf '%s\n' help --help --version
        return
    end
    set -l command $given[1]
    if printf '%s\n' $names | grep -q "^$command "
        if test (count $given) -eq 1
            printf '%s\n' $names | sed -n "s/^$command //p"
            return
        end
        set command $command $given[2]
    end
    set -l current (commandline -ct)
    set -l previous (commandline -opc)[-1]
    set -l options
    kith --complete $command 2>/dev/null | while read -l -d \t option kind argument help
        if test "$option" = "$previous"; and test "$kind" != flag
            switch $kind
                case choice
                    string split '|' -- $argument
                case file
                    __fish_complete_path $current
            end
            return
        end
        test -n "$option"; and set -a options (printf '%s\t%s' $option $help)
    end
    printf '%s\n' $options
    string match -q -- '-*' $current; or __fish_complete_path $current
end

complete -c kith -f -a '(__kith_table)'
